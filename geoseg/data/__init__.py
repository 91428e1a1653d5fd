"""What networks learn from and are measured with: annotations, and samples drawn from them.

`annotations` holds documents as columns; readers fill it, checks look at it. `samples` says what a
network is given; `scenes`, `towns` and `folder` make them, `augment` and `copypaste` change them.
Only `augment` imports torch.
"""
