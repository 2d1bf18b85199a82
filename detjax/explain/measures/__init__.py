"""Whether attributions are true: measures over a data set, for tables of methods.

Maps are [b h w], one of each image, as large as the network's input.
"""
