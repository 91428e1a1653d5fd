"""The stages of a run, each a function over chips or rows: tile, infer, footprints, export.

They chain what the other packages know and own no algorithm. `run` streams all of them in one
process without intermediate files; `store` holds what lies between them on disk otherwise.
"""
