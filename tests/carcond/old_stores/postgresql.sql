CREATE TABLE public.annotation (
    project_id integer NOT NULL,
    annotation_id integer NOT NULL,
    task_id integer NOT NULL,
    annotator integer NOT NULL,
    updated_at character varying NOT NULL,
    cancelled boolean NOT NULL,
    classes json NOT NULL
);
CREATE TABLE public.embedding (
    project_id integer NOT NULL,
    task_id integer NOT NULL,
    encoder_id character varying NOT NULL,
    vector bytea NOT NULL
);
CREATE TABLE public.photo (
    project_id integer NOT NULL,
    task_id integer NOT NULL,
    url character varying NOT NULL,
    phash character varying,
    photo_group integer,
    side character varying,
    drawn boolean NOT NULL,
    problem character varying,
    failures integer NOT NULL,
    retry_at double precision,
    gone boolean NOT NULL
);
CREATE TABLE public.prediction (
    project_id integer NOT NULL,
    prediction_id integer NOT NULL,
    task_id integer NOT NULL,
    model_version character varying NOT NULL,
    score double precision,
    slot integer
);
CREATE TABLE public.project (
    id integer NOT NULL,
    watermark character varying,
    label_config character varying NOT NULL
);
INSERT INTO public.annotation VALUES (7, 10, 1, 1, '2026-01-01T00:00:00Z', false, '{"damage": "intact", "cleanliness": "clean"}');
INSERT INTO public.annotation VALUES (7, 11, 2, 1, '2026-01-01T00:00:00Z', false, '{"damage": "damaged"}');
INSERT INTO public.annotation VALUES (7, 12, 3, 1, '2026-01-01T00:00:00Z', true, '{}');
INSERT INTO public.embedding VALUES (7, 1, 'tiny-00000000', '\x0038003c00c00000');
INSERT INTO public.embedding VALUES (7, 2, 'tiny-00000000', '\x0000003400440048');
INSERT INTO public.photo VALUES (7, 1, '/data/local-files/?d=cars/one.jpg', '00ff00ff00ff00ff', 1, 'train', false, NULL, 0, 0, false);
INSERT INTO public.photo VALUES (7, 2, '/data/local-files/?d=cars/two.jpg', 'ff00ff00ff00ff00', 2, 'holdout', true, NULL, 0, 0, false);
INSERT INTO public.photo VALUES (7, 3, '/data/local-files/?d=cars/грязная.jpg', NULL, NULL, NULL, false, 'not a photo', 2, NULL, false);
INSERT INTO public.photo VALUES (7, 4, 'https://example.com/gone.jpg', NULL, NULL, NULL, false, NULL, 0, 0, true);
INSERT INTO public.prediction VALUES (7, 20, 1, 'carcond-0001', 0.5, 3);
INSERT INTO public.prediction VALUES (7, 21, 2, 'carcond-0001', 0.25, 0);
INSERT INTO public.prediction VALUES (7, 22, 3, 'carcond-0000', NULL, NULL);
INSERT INTO public.project VALUES (7, '2026-01-02T03:04:05.000000Z', '<View/>');
ALTER TABLE ONLY public.annotation
    ADD CONSTRAINT annotation_pkey PRIMARY KEY (project_id, annotation_id);
ALTER TABLE ONLY public.embedding
    ADD CONSTRAINT embedding_pkey PRIMARY KEY (project_id, task_id, encoder_id);
ALTER TABLE ONLY public.photo
    ADD CONSTRAINT photo_pkey PRIMARY KEY (project_id, task_id);
ALTER TABLE ONLY public.prediction
    ADD CONSTRAINT prediction_pkey PRIMARY KEY (project_id, prediction_id);
ALTER TABLE ONLY public.project
    ADD CONSTRAINT project_pkey PRIMARY KEY (id);
CREATE INDEX ix_annotation_task_id ON public.annotation USING btree (task_id);
CREATE INDEX ix_prediction_task_id ON public.prediction USING btree (task_id);
