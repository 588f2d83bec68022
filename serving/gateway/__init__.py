"""The gateway: requests in, features and the model server asked, answers out."""

# Before Feast, which sets a variable as it is imported that would have Prometheus' client keep every count in
# files of a folder under /tmp, shared by all registries of the process.
import prometheus_client  # noqa: F401
