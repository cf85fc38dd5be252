"""Checks requests against a service's OpenAPI document (3.0 and 3.1).

options     what users write, checked
document    a document: read, its references followed, its schemas compiled by jsonschema-rs
templates   which operation a path belongs to
parameters  parameters, read out of a request and compared with their schemas
bodies      the same for bodies
api         all of it, compiled once: a request in, what is wrong with it out
plugin      the hooks
"""
