"""Drawing: call graphs and structures as SVG, PNG, PDF or DOT."""
