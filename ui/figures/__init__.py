"""The figures, one module each idea; ``ui/charts.py`` lists them all."""
