"""From results to figures, tables and one HTML file that needs nothing else.

Reports know arrays and plain values, as they are in result files; they compute no images.

=================  ===================================================================================================
`figures`          matplotlib figures of images, errors and masks, and their PNG bytes
`facts`            what a certificate, a verdict, a mask or a recipe says, in words
`html`             `Report` and `render`: one self-contained HTML page
`demo`             the report of the demonstration
`reconstruction`   the report of one reconstructed file
`flags`, `run`     what to look at in a batch, and its report
`evaluation`       the report of recipes and baselines on many files with references
`atoms`            the dictionaries of a model as a picture
=================  ===================================================================================================
"""
