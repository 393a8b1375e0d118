BEGIN TRANSACTION;
CREATE TABLE annotation (
	project_id INTEGER NOT NULL, 
	annotation_id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	annotator INTEGER NOT NULL, 
	updated_at VARCHAR NOT NULL, 
	cancelled BOOLEAN NOT NULL, 
	classes JSON NOT NULL, 
	PRIMARY KEY (project_id, annotation_id)
);
INSERT INTO "annotation" VALUES(7,10,1,1,'2026-01-01T00:00:00Z',0,'{"damage": "intact", "cleanliness": "clean"}');
INSERT INTO "annotation" VALUES(7,11,2,1,'2026-01-01T00:00:00Z',0,'{"damage": "damaged"}');
INSERT INTO "annotation" VALUES(7,12,3,1,'2026-01-01T00:00:00Z',1,'{}');
CREATE TABLE embedding (
	project_id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	encoder_id VARCHAR NOT NULL, 
	vector BLOB NOT NULL, 
	PRIMARY KEY (project_id, task_id, encoder_id)
);
INSERT INTO "embedding" VALUES(7,1,'tiny-00000000',X'0038003C00C00000');
INSERT INTO "embedding" VALUES(7,2,'tiny-00000000',X'0000003400440048');
CREATE TABLE photo (
	project_id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	url VARCHAR NOT NULL, 
	phash VARCHAR, 
	photo_group INTEGER, 
	side VARCHAR, 
	drawn BOOLEAN NOT NULL, 
	problem VARCHAR, 
	failures INTEGER NOT NULL, 
	retry_at DOUBLE, 
	gone BOOLEAN NOT NULL, 
	PRIMARY KEY (project_id, task_id)
);
INSERT INTO "photo" VALUES(7,1,'/data/local-files/?d=cars/one.jpg','00ff00ff00ff00ff',1,'train',0,NULL,0,0.0,0);
INSERT INTO "photo" VALUES(7,2,'/data/local-files/?d=cars/two.jpg','ff00ff00ff00ff00',2,'holdout',1,NULL,0,0.0,0);
INSERT INTO "photo" VALUES(7,3,'/data/local-files/?d=cars/грязная.jpg',NULL,NULL,NULL,0,'not a photo',2,NULL,0);
INSERT INTO "photo" VALUES(7,4,'https://example.com/gone.jpg',NULL,NULL,NULL,0,NULL,0,0.0,1);
CREATE TABLE prediction (
	project_id INTEGER NOT NULL, 
	prediction_id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	model_version VARCHAR NOT NULL, 
	score DOUBLE, 
	slot INTEGER, 
	PRIMARY KEY (project_id, prediction_id)
);
INSERT INTO "prediction" VALUES(7,20,1,'carcond-0001',0.5,3);
INSERT INTO "prediction" VALUES(7,21,2,'carcond-0001',0.25,0);
INSERT INTO "prediction" VALUES(7,22,3,'carcond-0000',NULL,NULL);
CREATE TABLE project (
	id INTEGER NOT NULL, 
	watermark VARCHAR, 
	label_config VARCHAR NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "project" VALUES(7,'2026-01-02T03:04:05.000000Z','<View/>');
CREATE INDEX ix_annotation_task_id ON annotation (task_id);
CREATE INDEX ix_prediction_task_id ON prediction (task_id);
COMMIT;
