"""The pages, one module each: ``show(answer)`` draws an answer."""
