"""CL2 inside the cluster, as a Kubernetes Job."""
