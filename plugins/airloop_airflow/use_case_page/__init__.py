"""The use case's page in Airflow's UI.

app             what it answers, and to whom
airflow_state   what only Airflow knows: runs, incidents, who may do what
static/         the page itself; charts by uPlot 1.6.32, as published (MIT)
"""
