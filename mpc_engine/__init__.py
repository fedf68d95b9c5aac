"""Joint registry statistics under secret sharing: one suppressed, noised release from many silos."""

__version__ = "0.1.0"
