"""Which published data stands, and what was made of data that does not: rolling back, and what is stale.

Belongs here: what needs both the tables and the model registry. Does not belong here: reading the tables'
history alone (`airloop.lakehouse.history`), or building anything again. Importing its modules imports MLflow.
"""
