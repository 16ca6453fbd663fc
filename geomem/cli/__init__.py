"""The command line: the only room that knows recipes, files and people. Heavy packages load inside commands."""
