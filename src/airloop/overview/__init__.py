"""One use case on one page: what the page in Airflow shows.

document     everything that takes tables and the registry to know, as it was when it was written
watched      drift by feature, quality and traffic by day
trainings    candidates and what became of them
published    tables, how fresh they are, audits
spending     what runs, models and predictions cost
write        the job that puts these together
live         what holds at this moment; read as the page is asked for
"""
