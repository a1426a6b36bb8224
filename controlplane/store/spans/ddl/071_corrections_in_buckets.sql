-- A correction says all usage of its call before and after, bucket by bucket: sums of calls and
-- corrections are then those of a rebuild. NULL in rows from before this file, and in open re-rates.
ALTER TABLE adjustment ADD COLUMN old_input_uncached BIGINT;
ALTER TABLE adjustment ADD COLUMN new_input_uncached BIGINT;
ALTER TABLE adjustment ADD COLUMN old_cache_read BIGINT;
ALTER TABLE adjustment ADD COLUMN new_cache_read BIGINT;
ALTER TABLE adjustment ADD COLUMN old_cache_write_5m BIGINT;
ALTER TABLE adjustment ADD COLUMN new_cache_write_5m BIGINT;
ALTER TABLE adjustment ADD COLUMN old_cache_write_1h BIGINT;
ALTER TABLE adjustment ADD COLUMN new_cache_write_1h BIGINT;
ALTER TABLE adjustment ADD COLUMN old_input_audio BIGINT;
ALTER TABLE adjustment ADD COLUMN new_input_audio BIGINT;
ALTER TABLE adjustment ADD COLUMN old_input_image BIGINT;
ALTER TABLE adjustment ADD COLUMN new_input_image BIGINT;
ALTER TABLE adjustment ADD COLUMN old_input_video BIGINT;
ALTER TABLE adjustment ADD COLUMN new_input_video BIGINT;
ALTER TABLE adjustment ADD COLUMN old_cache_read_audio BIGINT;
ALTER TABLE adjustment ADD COLUMN new_cache_read_audio BIGINT;
ALTER TABLE adjustment ADD COLUMN old_output_text BIGINT;
ALTER TABLE adjustment ADD COLUMN new_output_text BIGINT;
ALTER TABLE adjustment ADD COLUMN old_output_reasoning BIGINT;
ALTER TABLE adjustment ADD COLUMN new_output_reasoning BIGINT;
ALTER TABLE adjustment ADD COLUMN old_output_audio BIGINT;
ALTER TABLE adjustment ADD COLUMN new_output_audio BIGINT;
ALTER TABLE adjustment ADD COLUMN old_output_image BIGINT;
ALTER TABLE adjustment ADD COLUMN new_output_image BIGINT;
ALTER TABLE adjustment ADD COLUMN old_web_searches BIGINT;
ALTER TABLE adjustment ADD COLUMN new_web_searches BIGINT;
ALTER TABLE adjustment ADD COLUMN old_requests BIGINT;
ALTER TABLE adjustment ADD COLUMN new_requests BIGINT;
ALTER TABLE adjustment ADD COLUMN old_pages BIGINT;
ALTER TABLE adjustment ADD COLUMN new_pages BIGINT;
ALTER TABLE adjustment ADD COLUMN old_audio_seconds BIGINT;
ALTER TABLE adjustment ADD COLUMN new_audio_seconds BIGINT;
ALTER TABLE adjustment ADD COLUMN old_gpu_seconds BIGINT;
ALTER TABLE adjustment ADD COLUMN new_gpu_seconds BIGINT;
ALTER TABLE adjustment ADD COLUMN old_images BIGINT;
ALTER TABLE adjustment ADD COLUMN new_images BIGINT;
ALTER TABLE adjustment ADD COLUMN old_video_seconds BIGINT;
ALTER TABLE adjustment ADD COLUMN new_video_seconds BIGINT;
ALTER TABLE adjustment ADD COLUMN old_characters BIGINT;
ALTER TABLE adjustment ADD COLUMN new_characters BIGINT;

-- What a ledger that was put back is not told again: re-rates of open calls that it is told of anew,
-- at what they cost now.
CREATE TABLE adjustment_left_out (posting BIGINT NOT NULL, call_id VARCHAR NOT NULL);
