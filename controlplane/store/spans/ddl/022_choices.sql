-- How many samples an engine was asked for (ingest.settlement.CHOICES_KEY), from the attributes' JSON.
CREATE MACRO choices_of(attributes) AS TRY_CAST(
    regexp_extract(attributes, '"gen_ai\.request\.n":"([0-9]{1,4})"', 1) AS INTEGER
);
