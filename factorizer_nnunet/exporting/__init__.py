"""A trained model as one folder or zip for other places, with its card; and as ONNX with a small runner."""
