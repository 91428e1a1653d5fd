"""Training: from samples to weights that the rest of the package can use.

`options` says what may be set; `network`, `batches`, `optim`, `checkpoint`, `validate` and `log`
each do one thing; `loop` puts them together and reads from top to bottom.
"""
