"""Property tests take as long as they take: no test asserts a time, and machines differ."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
