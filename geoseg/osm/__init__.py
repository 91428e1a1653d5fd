"""OpenStreetMap: footprints as OSM objects, compared with what is mapped, in files and changesets.

`objects` builds them, `files` writes them, `mapped` reads what others drew, `conflate` compares,
`tasks` and `maproulette` hand out the rest for review, `exchange` talks to a server. Frame: WGS84
longitude and latitude in whole 1e-7 degrees, as OSM keeps them. Nothing here needs a raster.
"""
