"""The validation report: pictures, the document that is kept as JSON, and its page in HTML."""
