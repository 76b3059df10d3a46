"""The model as an ordinary MLflow model."""
