"""Training, measuring and registering models.

Belongs here: all that needs TensorFlow, and what prepares and judges it. Does not belong here: serving.
"""

# Before TensorFlow, which brings an OpenSSL of its own: given that one, PostgreSQL's client ends the process
# with a segmentation fault at its first connection over TLS.
import psycopg2  # noqa: F401
