"""The files that are sent as source through the wall, into the isolation: all of this folder, and nothing else.

What both sides need (the wire, the values on it) stands here, too. So these files import the standard library and each
other alone.
"""
