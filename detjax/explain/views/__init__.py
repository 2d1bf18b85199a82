"""What the commands of explanation write: one function `view` a file.

Each takes a trained model, files of pictures and a folder, and options that its
docstring describes; it returns the paths of what it wrote.
"""
