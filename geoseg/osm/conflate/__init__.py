"""Footprints against what is mapped: pairs, an offset, a status each, conflicts for review.

Frame: metres on the ground. Nothing that is mapped is changed. Must not import osmium.
"""
