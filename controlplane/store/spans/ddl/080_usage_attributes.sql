-- What stays of a span's attributes when a person is erased: what settlement reads of them.
CREATE MACRO usage_attributes(attributes) AS
    '{' || coalesce('"gen_ai.request.n":"' || choices_of(attributes) || '"', '') || '}';
