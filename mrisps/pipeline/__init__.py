"""From files and a recipe to a reconstruction and its quality."""
