"""Footprints become OSM objects: outlines on OSM's grid, cleaned, joined to neighbours, built.

Frame: WGS84 in whole 1e-7 degrees. Must not import osmium.
"""
