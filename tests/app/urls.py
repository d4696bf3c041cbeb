"""The tests' views."""

from django.contrib import admin
from django.urls import path

from tests.app import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("collect/<customer_id>/", views.collect),
    path("not-atomic/<customer_id>/", views.collect_not_atomic),
    path("not-atomic-above/<customer_id>/", views.collect_not_atomic_above),
    path("twice-locked/<customer_id>/", views.collect_twice_locked),
    path("method/<customer_id>/", views.CollectOnMethod.as_view()),
    path("dispatch/<customer_id>/", views.CollectOnDispatch.as_view()),
    path("or-202/<customer_id>/", views.collect_or_202),
    path("or-202-method/<customer_id>/", views.CollectOr202.as_view()),
    path("helper/<customer_id>/", views.collect_by_helper),
    path("http-helper/<customer_id>/", views.collect_by_http_helper),
    path("raising/<customer_id>/", views.collect_raising),
    path("release/<customer_id>/", views.collect_and_release),
    path("increment/<customer_id>/", views.increment),
    path("read-and-write/<customer_id>/", views.read_and_write),
    path("wait-read-and-write/<customer_id>/", views.wait_read_and_write),
    path("increment-method/<customer_id>/", views.IncrementOnMethod.as_view()),
    path("increment-unlocked/<customer_id>/", views.increment_unlocked),
    path("writing-first/<customer_id>/", views.WritingFirst.as_view()),
    path("below-login/<customer_id>/", views.collect_below_login),
    path("above-login/<customer_id>/", views.collect_above_login),
    path("rest-method/<customer_id>/", views.RESTOnMethod.as_view()),
    path("rest-dispatch/<customer_id>/", views.RESTOnDispatch.as_view()),
    path("rest-function/<customer_id>/", views.rest_function),
    path("async/<customer_id>/", views.collect_async),
    path("increment-in-block/<customer_id>/", views.increment_in_block),
    path("fail/<customer_id>/", views.collect_and_fail),
]
