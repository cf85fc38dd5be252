"""Keeps services' answers and gives them again, by RFC 9111.

options   what users write, checked
store     what is kept: bounded, the least recently used dropped first
rules     what may be kept and given: hishel decides, after what it does not look at
plugin    the hooks
"""
