"""`entra-fast doctor`: checks that say what is wrong with a sidecar's settings, its network and its provider.

What belongs here: the checks, one module for each area, and how their results are shown. They use the parts
that the sidecar itself uses, so that they judge as it does. What must never be here: rules of their own about
settings, URLs, keys or tokens.
"""
