"""Jobs on AWS instead of the worker: started, adopted, followed, stopped, and their results brought home.

names            what a task's jobs are called, and tagged with
elsewhere        the way of a job, the same for every service
service          what a service must be able to do
emr_serverless   Spark
sagemaker        training
batch            training on hosts of one's own choice, several for one job too
home             the files of a job, from S3 into the shared folder
"""
