"""What is mapped near footprints, read from extracts, Overpass documents and vector files.

Frame: WGS84 longitude and latitude in degrees.
"""
