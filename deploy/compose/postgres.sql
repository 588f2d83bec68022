-- Beside Airflow's own, which the image makes.
CREATE DATABASE mlflow;
CREATE DATABASE catalog;
CREATE DATABASE feast;
CREATE DATABASE tuning;
