/* The file backend: "file:DIR". What is in DIR, and what a start does, is in format.h. */
#ifndef CAIRN_STORAGE_FILE_BACKEND_H
#define CAIRN_STORAGE_FILE_BACKEND_H

#include "storage/storage.h"

extern const struct storage_ops storage_file;

#endif
