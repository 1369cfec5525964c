"""The command line: parse, call, print. One file a command; everything slow is imported inside the commands."""
