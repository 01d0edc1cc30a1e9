"""How upstream ClusterLoader2's Prometheus comes to scrape containerd.

Hides a ServiceMonitor that borrows the kubelets' targets and changes their port. Azure's fork has a
flag for it (--prometheus-scrape-containerd), upstream none.
"""

import json

from imgpull import units


def additional_monitors(
    containerd_port: int, scrape_interval_s: float, nodes: str = ".+"
) -> dict[str, str]:
    """Files for --prometheus-additional-monitors-path: containerd's metrics with upstream CL2.

    They select the kubelets' Service, so --prometheus-scrape-kubelets must be on. `nodes` is a
    regular expression of whole node names: one node without that port keeps CL2 from ever starting.
    """
    timeout_s = min(10.0, scrape_interval_s)  # as Azure's CL2 has it; never above the interval
    return {
        "containerd.yaml": _CONTAINERD_MONITOR
        % {
            "port": containerd_port,
            "interval": units.format_duration(scrape_interval_s),
            "timeout": units.format_duration(timeout_s),
            "nodes": json.dumps(nodes),
        }
    }


# CL2 renders these files as Go templates, so no double braces. Its Prometheus takes ServiceMonitors
# of any namespace and label (prometheus-prometheus.yaml); the operator puts our relabelings after
# its own, where `node` is the Node behind an endpoint (pkg/prometheus/promcfg.go, 0.91).
_CONTAINERD_MONITOR = """\
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: containerd
  namespace: monitoring
  labels:
    app.kubernetes.io/managed-by: imgpull
spec:
  namespaceSelector:
    matchNames:
    - kube-system
  selector:
    matchLabels:
      k8s-app: kubelet
  endpoints:
  - port: https-metrics # one address a node; its port is replaced
    scheme: http
    path: /v1/metrics
    interval: %(interval)s
    scrapeTimeout: %(timeout)s
    relabelings:
    - action: keep
      sourceLabels:
      - node
      regex: %(nodes)s
    - sourceLabels:
      - __address__
      regex: '(.+):[0-9]+'
      replacement: '$1:%(port)d'
      targetLabel: __address__
    - sourceLabels:
      - __address__
      targetLabel: instance
    - replacement: monitoring/containerd # the job that Azure's CL2 gives it
      targetLabel: job
"""
