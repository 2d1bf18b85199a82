"""What a network has learnt, and why it answers as it does.

Every method is a pure function of `Model.predict`, the weights and images, which jits;
`layers` names what lies between.
"""
