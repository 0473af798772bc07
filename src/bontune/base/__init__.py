"""The base of every room: errors, text, files, settings, signals, HTTP, the user's code, problems and thoughts."""
