"""OpenStreetMap: footprints as OSM objects, compared with what is mapped, in files and changesets.

Frame: WGS84 longitude and latitude in whole 1e-7 degrees, as OSM keeps them. The only package that
imports osmium; nothing here needs a raster or a network.
"""
