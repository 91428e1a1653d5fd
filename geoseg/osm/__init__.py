"""OpenStreetMap: footprints as OSM objects, compared with what is mapped, in files and changesets.

Frame: WGS84 longitude and latitude in whole 1e-7 degrees, as OSM keeps them. The only package that
imports osmium, and one of its modules, `api`, is the only one that talks to an OSM server. Nothing
here needs a raster.
"""
