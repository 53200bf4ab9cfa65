"""Feature selection and compact serving models for click-through-rate prediction."""

__version__ = "0.1.0"
