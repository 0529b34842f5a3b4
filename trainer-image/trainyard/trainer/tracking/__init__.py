"""Who follows a training besides the operator: an MLflow server, TensorBoard's files. Neither can hold it up."""
