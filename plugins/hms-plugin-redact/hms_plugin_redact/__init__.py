"""Keeps personal data out of the bodies that pass a sidecar.

options     what users write, checked
json_path   where in a JSON document a rule looks
rules       rules, applied to a text or to a JSON document, piece by piece
body        bytes of a message to text and back: charset, gzip
plugin      the hooks: which messages, and what becomes of those that cannot be looked at
"""
