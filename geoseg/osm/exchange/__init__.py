"""Changesets sent to a server of the OSM API 0.6, and taken back: a client, a journal, a protocol.

The only place that reaches a network. Must not import osmium.
"""
