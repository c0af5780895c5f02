"""Shadow: the answers of both arms joined by request, compared measure by measure, judged with bounds and shown."""
