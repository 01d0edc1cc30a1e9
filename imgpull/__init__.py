"""Container image pulls on Kubernetes as a declarative experiment matrix."""

__version__ = "0.1.0"
