"""One slice, one file, one array: from a source and a recipe to a result."""
