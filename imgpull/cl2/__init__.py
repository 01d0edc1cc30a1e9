"""The ClusterLoader2 dialect: test configs read, report directories written and read."""

from imgpull.cl2.junit import Case, Junit
from imgpull.cl2.measurements import (
    CONTROLLED_POLL_S,
    SUPPORTED_METHODS,
    MeasurementCall,
    PrometheusQueries,
    Query,
    prometheus_queries,
)
from imgpull.cl2.report import FailedPod, QueryResult, Report, read_report
from imgpull.cl2.testconfig import (
    ObjectBundle,
    Phase,
    Step,
    TestConfig,
    TuningSet,
    load_test,
    object_manifest,
    object_text,
    require_supported,
)
from imgpull.cl2.writer import TRANSITIONS, ReportWriter, nearest_rank, percentiles

__all__ = [
    "CONTROLLED_POLL_S",
    "SUPPORTED_METHODS",
    "TRANSITIONS",
    "Case",
    "FailedPod",
    "Junit",
    "MeasurementCall",
    "ObjectBundle",
    "Phase",
    "PrometheusQueries",
    "Query",
    "QueryResult",
    "Report",
    "ReportWriter",
    "Step",
    "TestConfig",
    "TuningSet",
    "load_test",
    "nearest_rank",
    "object_manifest",
    "object_text",
    "percentiles",
    "prometheus_queries",
    "read_report",
    "require_supported",
]
